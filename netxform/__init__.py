"""netxform."""
