"""The rows, one file each. `campaign.row` finds them; nothing here needs to name them."""
