# SPDX-License-Identifier: BSD-2-Clause
"""What the integration tests are made of: servers to run, clients to aim at them."""
