"""A rule for `diffpolicy serve`, with a mistake in it: `--policy mine_router:fewest_seconds`."""


def fewest_seconds(moment):
    """What each server costs the request that came first: the seconds that it would take there."""
    return -moment.service_s[0]  # the mistake: of costs the smallest wins, so no sign belongs here
