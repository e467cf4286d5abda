"""S3: an object store on a bucket of any S3-compatible server.

bucket           a bucket as its requests, and every possible outcome of each
requests         the same requests in S3's own terms
client           the client that sends them; the only user of boto3
responses        S3's answers, translated into the types of ``bucket``
errors           what a server's codes and a client's errors mean
names            the bucket's address; translates keys to full names and back
store            the object store, made of a bucket's requests
conditional_put  conditional puts that recognise their own success
purge            deletes every version and delete marker of a name
lease            the right to write, kept by renewal
files            other people's files in a bucket, read only
backoff          the pause before another attempt
"""
