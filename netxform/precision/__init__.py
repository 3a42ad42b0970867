"""Numbers of fewer bits: rounding to half precision, and int8."""
