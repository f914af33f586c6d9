"""Everything that says `tornado`: routes, token, Host and Origin checks, the page's WebSocket."""
