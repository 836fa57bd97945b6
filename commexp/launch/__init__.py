"""Where a run is carried out, and how several runs become a sweep."""
