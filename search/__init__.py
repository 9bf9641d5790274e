"""5  The search page: reads documents, writes nothing."""
