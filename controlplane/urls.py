"""The whole HTTP surface on one page.

Enrolled devices' addresses under ``/api/v1`` (work, rounds' assignments and joins, submissions, models) are served
beside Django by ``rounds/endpoints.py``; everything else is here.
"""

from django.http import HttpRequest, HttpResponse
from django.urls import path
from drf_spectacular.views import SpectacularAPIView

from controlplane.audit import views as audit
from devices import views as devices
from devices.admission import views as admission
from devices.rotations import views as rotations
from frontend.views import claims as claim_pages
from frontend.views import classes as class_pages
from frontend.views import devices as device_pages
from frontend.views import keys as key_pages
from frontend.views import ledger as ledger_pages
from frontend.views import models as model_pages
from frontend.views import overview as overview_pages
from frontend.views import rotations as rotation_pages
from frontend.views import sign_in as sign_in_pages
from frontend.views import sites as site_pages
from frontend.views import trainings as training_pages
from keys import views as keys
from rounds import views as rounds
from rounds.registry import views as registry


def health(request: HttpRequest) -> HttpResponse:
    """Whether this process answers."""
    return HttpResponse("ok\n", content_type="text/plain")


handler400 = "controlplane.errors.bad_request"
handler404 = "controlplane.errors.not_found"
handler500 = "controlplane.errors.server_error"

urlpatterns = [
    path("healthz", health),
    # devices: enrolment and trust
    path("api/v1/trust", keys.trust),
    path("api/v1/revocations.crl", keys.revocation_list),
    path("api/v1/revocations/<slug:issuer>.crl", keys.revocation_list),
    path("api/v1/ocsp", keys.ocsp),
    path("api/v1/ocsp/<path:question>", keys.ocsp_by_address),
    path("api/v1/enrolments", devices.EnrolmentsView.as_view()),
    path("api/v1/enrolments/<uuid:enrolment_id>/finish", devices.FinishEnrolmentView.as_view()),
    path("api/v1/me", devices.MeView.as_view()),
    # operators
    path("api/v1/keys", keys.KeysView.as_view()),
    path("api/v1/keys/<uuid:key_id>", keys.KeyView.as_view()),
    path("api/v1/certificates", keys.CertificatesView.as_view()),
    path("api/v1/certificates/<slug:serial>", keys.CertificateFileView.as_view(), name="certificate-file"),
    path("api/v1/sites", admission.SitesView.as_view()),
    path("api/v1/sites/<uuid:site_id>", admission.SiteView.as_view()),
    path("api/v1/device-classes", admission.DeviceClassesView.as_view()),
    path("api/v1/device-classes/<uuid:class_id>", admission.DeviceClassView.as_view()),
    path("api/v1/claims", admission.ClaimsView.as_view()),
    path("api/v1/claims/bulk", admission.ClaimBulkView.as_view()),
    path("api/v1/claims/<uuid:claim_id>", admission.ClaimView.as_view()),
    path("api/v1/devices", devices.DevicesView.as_view()),
    path("api/v1/devices/<uuid:device_id>", devices.DeviceView.as_view()),
    path("api/v1/devices/<uuid:device_id>/approve", devices.ApproveDeviceView.as_view()),
    path("api/v1/devices/<uuid:device_id>/decline", devices.DeclineDeviceView.as_view()),
    path("api/v1/devices/<uuid:device_id>/suspend", devices.SuspendDeviceView.as_view()),
    path("api/v1/devices/<uuid:device_id>/reinstate", devices.ReinstateDeviceView.as_view()),
    path("api/v1/devices/<uuid:device_id>/revoke", devices.RevokeDeviceView.as_view()),
    path("api/v1/rotations", rotations.RotationsView.as_view()),
    path("api/v1/rotations/due", rotations.DueView.as_view()),
    path("api/v1/rotations/preview", rounds.RotationPreviewView.as_view()),
    path("api/v1/rotations/<uuid:rotation_id>", rotations.RotationView.as_view()),
    path("api/v1/rotations/<uuid:rotation_id>/pause", rotations.RotationPauseView.as_view()),
    path("api/v1/rotations/<uuid:rotation_id>/resume", rotations.RotationResumeView.as_view()),
    path("api/v1/rotations/<uuid:rotation_id>/cancel", rotations.RotationCancelView.as_view()),
    path("api/v1/suites", rotations.SuitesView.as_view()),
    path("api/v1/suites/<slug:suite>/accept", rotations.SuiteAcceptView.as_view()),
    path("api/v1/suites/<slug:suite>/retire", rotations.SuiteRetireView.as_view()),
    path("api/v1/suites/<slug:suite>/keep", rotations.SuiteKeepView.as_view()),
    path("api/v1/trainings", rounds.TrainingsView.as_view()),
    path("api/v1/trainings/<uuid:id>", rounds.TrainingView.as_view()),
    path("api/v1/trainings/<uuid:id>/stop", rounds.TrainingStopView.as_view()),
    path("api/v1/trainings/<uuid:id>/comparison", rounds.TrainingComparisonView.as_view()),
    path("api/v1/rounds", rounds.RoundsView.as_view()),
    path("api/v1/rounds/<uuid:id>", rounds.RoundView.as_view()),
    path("api/v1/models", registry.ModelsView.as_view()),
    path("api/v1/models/<uuid:id>", registry.ModelView.as_view()),
    path("api/v1/models/<uuid:id>/lineage", registry.ModelLineageView.as_view()),
    path("api/v1/models/<uuid:id>/retire", registry.ModelRetireView.as_view()),
    path("api/v1/models/<uuid:id>/revoke", registry.ModelRevokeView.as_view()),
    path("api/v1/model-exports", registry.ModelExportsView.as_view()),
    path("api/v1/model-exports/<uuid:id>", registry.ModelExportView.as_view()),
    path("api/v1/model-exports/<uuid:id>/file", registry.ModelExportFileView.as_view()),
    path("api/v1/model-differences", registry.ModelDifferencesView.as_view()),
    path("api/v1/model-differences/<uuid:id>", registry.ModelDifferenceView.as_view()),
    path("api/v1/aliases", registry.AliasesView.as_view()),
    path("api/v1/alias-moves", registry.AliasMovesView.as_view()),
    path("api/v1/alias-moves/<uuid:id>/confirm", registry.AliasMoveConfirmView.as_view()),
    path("api/v1/alias-moves/<uuid:id>/decline", registry.AliasMoveDeclineView.as_view()),
    path("api/v1/alias-moves/<uuid:id>/withdraw", registry.AliasMoveWithdrawView.as_view()),
    path("api/v1/ledger", audit.LedgerView.as_view()),
    path("api/v1/schema", SpectacularAPIView.as_view()),
    # people
    path("", overview_pages.overview, name="overview"),
    path("sign-in/", sign_in_pages.SignIn.as_view(), name="sign-in"),
    path("sign-in/<str:token>/", sign_in_pages.sign_in_by_link, name="sign-in-link"),
    path("sign-out/", sign_in_pages.sign_out, name="sign-out"),
    path("trainings/", training_pages.training_list, name="trainings"),
    path("trainings/new/", training_pages.training_new, name="training-new"),
    path("trainings/<uuid:training_id>/", training_pages.training, name="training"),
    path("rounds/<uuid:round_id>/", training_pages.round_page, name="round"),
    path("rounds/<uuid:round_id>/account/", training_pages.round_account, name="round-account"),
    path("rounds/<uuid:round_id>/record/", training_pages.round_record, name="round-record"),
    path("rounds/<uuid:round_id>/proof/", training_pages.round_proof, name="round-proof"),
    path("models/", model_pages.model_list, name="models"),
    path("models/<uuid:model_id>/", model_pages.model_page, name="model"),
    path("models/<uuid:model_id>/manifest/", model_pages.model_manifest, name="model-manifest"),
    path("models/<uuid:model_id>/propose/", model_pages.propose, name="model-propose"),
    path("models/<uuid:model_id>/retire/", model_pages.retire, name="model-retire"),
    path("models/<uuid:model_id>/revoke/", model_pages.revoke, name="model-revoke"),
    path("models/<uuid:model_id>/compare/", model_pages.compare, name="model-compare"),
    path("models/<uuid:model_id>/export/", model_pages.export, name="model-export"),
    path("model-exports/<uuid:export_id>/file/", model_pages.export_file, name="model-export-file"),
    path("model-differences/<uuid:difference_id>/", model_pages.model_difference, name="model-difference"),
    path("alias-moves/<uuid:move_id>/confirm/", model_pages.confirm_move, name="move-confirm"),
    path("alias-moves/<uuid:move_id>/decline/", model_pages.decline_move, name="move-decline"),
    path("alias-moves/<uuid:move_id>/withdraw/", model_pages.withdraw_move, name="move-withdraw"),
    path("devices/", device_pages.device_list, name="devices"),
    path("devices/<uuid:device_id>/approve/", device_pages.approve, name="device-approve"),
    path("devices/<uuid:device_id>/decline/", device_pages.decline, name="device-decline"),
    path("claims/", claim_pages.claim_list, name="claims"),
    path("claims/order/", claim_pages.order, name="claim-order"),
    path("claims/bulk/", claim_pages.bulk, name="claim-bulk"),
    path("claims/<uuid:claim_id>/cancel/", claim_pages.cancel, name="claim-cancel"),
    path("sites/", site_pages.site_list, name="sites"),
    path("sites/<uuid:site_id>/", site_pages.site, name="site"),
    path("device-classes/", class_pages.class_list, name="device-classes"),
    path("device-classes/<uuid:class_id>/", class_pages.device_class, name="device-class"),
    path("rotations/", rotation_pages.rotation_list, name="rotations"),
    path("rotations/start/", rotation_pages.rotation_start, name="rotation-start"),
    path("rotations/<uuid:rotation_id>/", rotation_pages.rotation_page, name="rotation"),
    path("rotations/<uuid:rotation_id>/<slug:event>/", rotation_pages.rotation_move, name="rotation-move"),
    path("suites/<slug:suite>/<slug:event>/", rotation_pages.suite_move, name="suite-move"),
    path("keys/", key_pages.key_list, name="keys"),
    path("keys/<uuid:key_id>/", key_pages.key_page, name="key"),
    path("ledger/", ledger_pages.ledger_page, name="ledger"),
]
