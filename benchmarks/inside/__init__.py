"""What measures itself from within: processes that are told when, and answer with a figure."""
