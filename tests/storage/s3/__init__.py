"""The store on a bucket: requests, faults, purges, leases."""
