"""The heart: networks, edits, selections, what a verb is and what it promises."""
