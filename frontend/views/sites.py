"""Hospitals: all of them, and one with its devices in its own time."""

from uuid import UUID

from django.contrib import messages
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods

from controlplane.errors import problem_of
from controlplane.permissions import Role, roles_of
from devices.models import Federation, Site
from devices.sites import change_site, create_site, facts_of
from frontend.forms import NewSiteForm, SiteForm
from frontend.views.access import KEY_READERS, actor_of, for_roles, require_operator
from latticeward.errors import LatticewardError


@require_http_methods(["GET", "HEAD", "POST"])
@for_roles(*KEY_READERS)
def site_list(request: HttpRequest) -> HttpResponse:
    """Every hospital with zone, contact and number of devices; operators add one here."""
    federation = Federation.objects.order_by("created_at").first()
    form = NewSiteForm()
    if request.method == "POST":
        require_operator(request)
        form = NewSiteForm(request.POST)
        if federation is not None and form.is_valid():
            try:
                made = create_site(federation=federation, actor=actor_of(request), **form.cleaned_data)
            except LatticewardError as error:
                form.add_error(None, str(problem_of(error)[1]["detail"]))
            else:
                messages.success(request, f"{made.name} is a hospital of the federation.")
                return redirect("site", made.id)
    context = {
        "sites": Site.objects.annotate(machines=Count("devices")).order_by("name"),
        "form": form,
        "may_change": federation is not None and Role.OPERATOR in roles_of(request.user),
    }
    return render(request, "frontend/sites.html", context, status=422 if form.errors else 200)


@require_http_methods(["GET", "HEAD", "POST"])
@for_roles(*KEY_READERS)
def site(request: HttpRequest, site_id: UUID) -> HttpResponse:
    """One hospital; its times are those of its own clocks."""
    shown = get_object_or_404(Site, pk=site_id)
    form = SiteForm(initial={name: getattr(facts_of(shown), name) for name in SiteForm.base_fields})
    if request.method == "POST":
        require_operator(request)
        form = SiteForm(request.POST)
        if form.is_valid():
            try:
                change_site(site_id=shown.id, changes=form.cleaned_data, actor=actor_of(request))
            except LatticewardError as error:
                form.add_error(None, str(problem_of(error)[1]["detail"]))
            else:
                messages.success(request, "Saved.")
                return redirect("site", shown.id)
    context = {
        "site": shown,
        "devices": shown.devices.select_related("device_class").order_by("name"),
        "form": form,
        "may_change": Role.OPERATOR in roles_of(request.user),
    }
    return render(request, "frontend/site.html", context, status=422 if form.errors else 200)
