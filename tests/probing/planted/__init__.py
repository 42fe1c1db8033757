"""Every measured rule, with the fault it finds planted in nets of several styles."""
