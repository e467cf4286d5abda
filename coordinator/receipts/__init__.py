"""Receipts: what an erasure did, signed, logged, checked.

kinds          which statements there are
openings       commitments to names, and whom a receipt is about
evidence       the facts, and the statement made of them
statements     that nothing was found, or that somebody comes back
bundles        a receipt as it is handed out, and the offline check
issuer         issues receipts, finds them, checks them and their log
rollback       whether the state was put back to before what the log states
site_receipts  receipts of a federation of several sites
"""
