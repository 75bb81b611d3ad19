"""What a portal of each version does on the way, and that signing in works through all of them. Real Open OnDemand is untested."""

import pytest
import requests

from tests.portal.conftest import Site
from tests.support.box import PASSWORD, USER, Box, until
from tests.support.portal import portal

pytestmark = [pytest.mark.heavy, pytest.mark.box, pytest.mark.timeout(300)]


def sign_in(site: Site, user: str, *, ticket_of: str | None = None) -> tuple[requests.Session, requests.Response]:
    """What the console's self-submitting form does in a browser."""
    session = site.portal.session(user)
    form = {"ticket": site.ticket(ticket_of or user)}
    answer = session.post(f"{site.url}-/sign-in", data=form, headers={"Origin": site.portal.origin}, timeout=60, allow_redirects=False)
    return session, answer


def principal(site: Site, session: requests.Session, **options: object) -> str | None:
    answer = session.get(f"{site.url}-/info", timeout=60, **options)  # type: ignore[arg-type]
    return str(answer.json()["principal"]) if answer.status_code == 200 else None


def test_one_click_signs_in_and_the_cookie_is_the_servers_alone(site: Site) -> None:
    session, answer = sign_in(site, "alice")
    assert (answer.status_code, answer.headers["Location"]) == (303, f"/rnode/127.0.0.1/{site.box.port}/mlflow/")
    (cookie,) = [each for each in session.cookies if "aihub" in each.name]
    assert (cookie.path, cookie.secure) == (f"/rnode/127.0.0.1/{site.box.port}", True)
    assert principal(site, session) == "portal:alice"
    assert session.get(site.url, timeout=60).status_code == 200


def test_nobody_uses_anothers_ticket_or_cookie(site: Site) -> None:
    _session, answer = sign_in(site, "mallory", ticket_of="alice")
    assert answer.status_code == 403
    alice, _answer = sign_in(site, "alice")
    thief = site.portal.session("mallory")
    thief.cookies.update({each.name: each.value for each in alice.cookies if "aihub" in each.name})
    assert principal(site, thief) is None
    # What a browser says of its user is overwritten.
    assert principal(site, thief, headers={"X-Forwarded-User": "alice"}) is None
    # Apache takes away what a client's `Connection` names, and what the portal says is named so too: the site kit has a line against it.
    assert principal(site, thief, headers={"Connection": "close, X-Forwarded-User"}) is None


def test_a_stranger_to_the_portal_reaches_nothing(site: Site) -> None:
    for path in ("", "-/health", "-/sign-in", "api/2.0/mlflow/experiments/search"):
        certificate = str(site.portal.home / "cert.pem")
        answer = requests.get(f"{site.url}{path}", verify=certificate, timeout=60, allow_redirects=False)
        assert answer.status_code in {401, 403}
        assert "portal:" not in answer.text


def test_basic_passes_up_to_4_0_and_no_further(site: Site) -> None:
    """So the page must not ask for a password where none can arrive: through a portal a browser gets the way to the console instead."""
    session = site.portal.session("alice")
    passes = site.portal.version in {"3.1", "4.0"}
    answer = session.get(f"{site.url}-/info", auth=(USER, PASSWORD), timeout=60)
    assert answer.status_code == (200 if passes else 401)
    refused = session.get(site.url, timeout=60, headers={"Accept": "text/html"})
    assert (refused.status_code, "WWW-Authenticate" in refused.headers) == (401, False)
    assert "/pun/sys/mlflow-console" in refused.text


def test_addresses_stay_behind_the_portal(site: Site) -> None:
    session, _answer = sign_in(site, "alice")
    bare = session.get(site.url.removesuffix("/"), timeout=60, allow_redirects=False)
    assert bare.is_redirect
    assert bare.headers["Location"].startswith(f"/rnode/127.0.0.1/{site.box.port}/")
    assert "/rnode/127.0.0.1/" not in bare.headers["Location"].removeprefix("/rnode/127.0.0.1/"), "a doubled prefix leads nowhere"
    followed = session.get(site.url.removesuffix("mlflow/"), timeout=60)
    assert (followed.status_code, followed.url) == (200, site.url)
    out = session.post(f"{site.url}-/sign-out", headers={"Origin": site.portal.origin}, timeout=60, allow_redirects=False)
    assert out.headers["Location"] == f"/rnode/127.0.0.1/{site.box.port}/mlflow/-/sign-in"
    assert principal(site, session) is None


def test_writes_need_the_portals_own_pages(site: Site) -> None:
    session, _answer = sign_in(site, "alice")
    body = {"experiment_id": "0", "run_name": f"through {site.portal.version}"}
    path = f"{site.url}ajax-api/2.0/mlflow/runs/create"
    assert session.post(path, json=body, headers={"Origin": site.portal.origin}, timeout=60).status_code == 200
    for origin in ("https://evil.example.org", "null"):
        assert session.post(path, json=body, headers={"Origin": origin}, timeout=60).status_code == 403
    assert session.post(path, json=body, timeout=60).status_code == 403


def test_large_artifacts_and_their_policies_pass(site: Site) -> None:
    session, _answer = sign_in(site, "alice")
    headers = {"Origin": site.portal.origin}
    run = session.post(f"{site.url}ajax-api/2.0/mlflow/runs/create", json={"experiment_id": "0"}, headers=headers, timeout=60).json()["run"]
    place = f"ajax-api/2.0/mlflow-artifacts/artifacts/0/{run['info']['run_id']}/artifacts"
    large = b"0123456789abcdef" * (4 * 1024 * 1024)
    assert session.put(f"{site.url}{place}/large.bin", data=large, headers=headers, timeout=120).status_code == 200
    assert session.get(f"{site.url}{place}/large.bin", timeout=120).content == large
    session.put(f"{site.url}{place}/a%20page.html", data=b"<script>1</script>", headers=headers, timeout=60)
    page = session.get(f"{site.url}get-artifact", params={"run_id": run["info"]["run_id"], "path": "a page.html"}, timeout=60)
    assert page.content == b"<script>1</script>"
    policies = page.raw.headers.getlist("Content-Security-Policy")
    assert any("sandbox" in policy.split("; ") or policy == "sandbox" for policy in policies), policies


def test_a_portal_with_basic_of_its_own(portal_box: Box) -> None:
    """Before 4.1 its password reaches every backend: the box takes it for nobody's, and the cookie goes before it."""
    for version in ("4.0", "4.1"):
        with portal(version, {"alice": None}, basic=True) as own:
            portal_box.write_settings(origins=[*portal_box.settings["origins"], own.origin])
            site = Site(own, portal_box)
            session = own.session("alice")
            assert session.get(f"{site.url}-/info", timeout=60).status_code == 401

            def origin_is_known(site: Site = site) -> bool:
                return sign_in(site, "alice")[1].status_code == 303

            until(origin_is_known, what="the box's new settings")
            session, _answer = sign_in(site, "alice")
            assert principal(site, session) == "portal:alice"
