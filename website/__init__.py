"""The documentation's site: what MkDocs generates beside the pages in docs/."""
