"""While it trains: the noise scale from quantities of the training steps themselves."""
