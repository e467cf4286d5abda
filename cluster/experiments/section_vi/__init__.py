"""Section VI of "Learn to Unlearn" (Qu et al.): the survey's own experiment, on real data.

definition   the experiment
grid         settings and cells
removal      which data points leave
descents     full retrain and DeltaGrad
federations  SISA and exact forests
summary      means and standard deviations of rows
checks       published figures beside ours
pictures     the figures
account      the report
"""
