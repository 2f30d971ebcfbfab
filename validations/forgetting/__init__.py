"""Everything that is measured about a request to forget. Numbers only: no text, token or piece of either is kept."""
