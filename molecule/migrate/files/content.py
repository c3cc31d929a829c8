# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
import json

from django.contrib.auth.models import User
from django.utils import timezone
from graphite.dashboard.models import Dashboard
from graphite.events.models import Event

User.objects.create_superuser("olga", "olga@example.org", "years-ago-2019")
target = "stats.gauges.billing.open"
graph = [target, {"title": "Invoices", "target": [target]}, f"/render?target={target}"]
Dashboard.objects.create(name="Billing", state=json.dumps({"name": "Billing", "graphs": [graph]}))
Event(when=timezone.now(), what="Moved to the new rack", data="by Olga", tags="rack").save()
