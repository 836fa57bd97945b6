"""Matrix factorisation: ratings, the files that hold them, their split over workers, and the problem itself."""
