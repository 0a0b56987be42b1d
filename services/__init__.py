"""The four services, the runtime they stand on, and the console that starts and asks them."""
