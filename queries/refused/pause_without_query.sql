PAUSE sums
