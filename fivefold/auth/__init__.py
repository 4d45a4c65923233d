"""Who is speaking: keys of sites, custodians and leads."""
