"""Methods that exchange a gradient in every step, and the base of all methods that take gradient steps."""
