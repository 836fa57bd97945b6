"""Methods that compress how gradients differ from what is known of them already."""
