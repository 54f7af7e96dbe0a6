"""Pictures for people: tables and galleries of samples, and curves of metrics."""
