"""Where `Policy` stood by its name of before."""

from diffpolicy._deprecated import keep_old_names

keep_old_names(__name__)
