// Colours, then the sections in order.

const THEMES = ['system', 'light', 'dark'];

function themes() {
  const button = document.getElementById('theme');
  const stored = () => { try { return localStorage.getItem('effx-colours'); } catch { return null; } };
  let theme = THEMES.includes(stored()) ? stored() : 'system';
  const use = () => {
    if (theme === 'system') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.textContent = `Colours: ${theme}`;
  };
  button.addEventListener('click', () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    try { localStorage.setItem('effx-colours', theme); } catch { /* a page without storage forgets */ }
    use();
  });
  use();
}

themes();
document.getElementById('about').textContent += ` ${count(ROWS.length, 'result')}, ${count(Object.keys(DATA.hosts).length, 'host')}, ${METERED.length ? `energy source: ${METERED.join(', ')}` : 'energy unavailable'}.`;
frontierSection();
enginesSection();
curvesSection();
gridSection();
loadSection();
energySection();
limitationsSection();
extraSections();
hostsSection();
for (const heading of document.querySelectorAll('section.text h2')) {
  document.getElementById('contents').append(el('a', { href: `#${heading.id}` }, heading.textContent));
}
