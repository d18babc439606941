"""A server without a cluster: its variables instead of a plan, and folders by date for what it makes."""
