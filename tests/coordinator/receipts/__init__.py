"""Evidence, bundles, the issuer."""
