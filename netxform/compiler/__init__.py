"""The arrows of the data flow, one file each: expand, check, resolve, execute, measure."""
