"""What Passenger loads: `application`. Open OnDemand starts one such process for each user, as that user."""

from ood_app.app import create_app

application = create_app()
