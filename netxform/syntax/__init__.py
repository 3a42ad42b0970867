"""The text: tree, parser, quantities, canonical form. Nothing here imports torch."""
