"""Methods that exchange a gradient in every step."""
