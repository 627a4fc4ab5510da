"""The embedded solver: time-mean incompressible wind through and over a screenhouse.

`grid` and `problem` describe cases in numpy; `layout`, `poisson`, `transport`, `closure` and
`stepper` compute in torch; `march` drives a batch to steady state.
"""
