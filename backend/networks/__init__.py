"""The containers' networks and what they may reach, as text for nft and Docker."""
