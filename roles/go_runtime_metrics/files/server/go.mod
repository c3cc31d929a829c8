// SPDX-License-Identifier: GPL-3.0-or-later
// Copyright: metricstack maintainers

module metricstack.example/go-runtime-metrics

go 1.19
