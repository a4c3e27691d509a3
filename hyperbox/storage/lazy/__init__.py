"""Images that are mounted before they are here: each read fetches and verifies what it needs."""
