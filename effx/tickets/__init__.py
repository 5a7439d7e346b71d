"""Which structures a ticket loses, and the scores that decide it; without PyTorch."""
