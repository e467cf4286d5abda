"""Sites on one cluster: a labelled node each, with what only that site has."""
