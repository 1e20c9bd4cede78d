"""The scenarios, one file each. `reliability.scenario` finds them; nothing here lists them."""
