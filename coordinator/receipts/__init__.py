"""Receipts: what an erasure did, signed, logged, checked.

kinds          which statements there are
openings       commitments to names, and whom a receipt is about
evidence       the facts, and the statement made of them
statements     that nothing was found, or that somebody comes back
bundles        a receipt as it is handed out, and the offline check
archive        receipts as they are stored, by themselves or in packs
packing        puts old receipts into packs
issuer         issues receipts, finds them, checks them and their log
checking       whether all receipts are what the log states
rollback       whether the state was put back to before what the log states
site_receipts  receipts of a federation of several sites
"""
