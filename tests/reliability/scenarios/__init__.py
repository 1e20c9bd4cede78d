"""The scenarios, one file each. `reliability.scenario` finds them; nothing here needs to name them."""
