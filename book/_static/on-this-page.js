// The theme's scroll spy looks for a list that this theme's pages do not have, and then tries every link of the
// page, theorem labels with colons in them too. Point it at the list "On this page", or leave it off where there is none.
document.addEventListener("DOMContentLoaded", () => {
  if (document.querySelector(".bd-sidebar-secondary .page-toc, .bd-sidebar-secondary .section-nav")) {
    document.body.dataset.bsTarget = ".bd-sidebar-secondary";
  } else {
    document.body.removeAttribute("data-bs-spy");
  }
});
