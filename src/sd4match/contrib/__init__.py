"""Adapters to the interfaces of other libraries, which are imported only where they are used."""
