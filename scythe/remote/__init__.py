"""Files of web servers and buckets: fetched into a cache that all processes of a user share."""
