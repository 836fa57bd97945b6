"""Matrix factorisation of ratings: who rated what, where such data lie, how they are split over workers."""
