"""Rolling a version out in stages. Pure: what devices report goes in, what to do comes out.

``plan`` lays a rollout out over devices, ``decide`` says what comes next, ``operate`` is what a
person may do meanwhile; each takes a :class:`~edge_sdk.fleet.rollout.state.Rollout` and gives the
next one. Reading devices, writing shadows and keeping rollouts is
:mod:`edge_sdk.fleet.rollout_engine`'s.
"""
