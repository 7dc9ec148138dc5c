"""Apps in the browser, on the user's own machine; they need the extra `app`."""
