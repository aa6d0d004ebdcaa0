"""Programs and packages that serve a trained agent: export, server, client."""
