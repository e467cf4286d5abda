"""S3: an object store on a bucket, whichever server answers.

bucket           a bucket as its requests, and every possible outcome of each
requests         those requests in S3's own terms
client           the client that sends them; the one door to boto3
responses        S3's answers turned into the words of ``bucket``
errors           what a server's codes and a client's errors mean
names            the bucket's address; keys to full names and back
store            the object store, made of a bucket's requests
conditional_put  conditional puts that know their own success
purge            deletes every version and delete marker of a name
lease            the right to write, kept by renewal
files            files that others keep in a bucket, read only
backoff          the pause before another attempt
"""
