"""The edge agent: serves the newest good release on the device, and never stops serving.

In-process use::

    from edge_agent.agent import EdgeAgent
    from edge_agent.config import AgentConfig

    with EdgeAgent(AgentConfig.from_toml("configs/edge/local.toml")) as agent:
        prediction = agent.predict({"wind_speed": 4.0, "wind_from_direction": 270.0})

This package imports none of the other packages of this repository, and neither torch, parsl nor
xarray: it installs on a small device from wheels.
"""
